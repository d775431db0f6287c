package formatter

import (
	"strconv"
	"strings"
)

// SearchResult is what the API says of a repository.
type SearchResult struct {
	StarCount   int    `json:"star_count"`
	IsOfficial  bool   `json:"is_official"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

// SearchContext is a row of search.
type SearchContext struct {
	r     *SearchResult
	trunc bool
}

// Search makes rows of list.
func Search(list []SearchResult, o RowOptions) []*SearchContext {
	out := make([]*SearchContext, len(list))
	for i := range list {
		out[i] = &SearchContext{r: &list[i], trunc: o.Trunc}
	}
	return out
}

// SearchTable describes search.
func SearchTable() Table[*SearchContext] {
	return Table[*SearchContext]{
		Columns: []Column[*SearchContext]{
			{"NAME", (*SearchContext).Name}, {"DESCRIPTION", (*SearchContext).Description}, {"STARS", (*SearchContext).StarCount}, {"OFFICIAL", (*SearchContext).IsOfficial},
		},
		Headers: map[string]string{"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"},
	}
}

// Name of the repository.
func (s *SearchContext) Name() string { return s.r.Name }

// Description on one line.
func (s *SearchContext) Description() string {
	d := strings.NewReplacer("\n", " ", "\r", " ").Replace(s.r.Description)
	if s.trunc {
		return Ellipsis(d, 45)
	}
	return d
}

// StarCount counts those who like it.
func (s *SearchContext) StarCount() string { return strconv.Itoa(s.r.StarCount) }

// IsOfficial marks official images.
func (s *SearchContext) IsOfficial() string {
	if s.r.IsOfficial {
		return "[OK]"
	}
	return ""
}
